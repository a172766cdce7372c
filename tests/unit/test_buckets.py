"""What a bucket needs from the environment, and what is told of a store's errors."""

from collections.abc import Iterator

import pyarrow.fs
import pytest

from digitq.protocol.errors import StoreError, UsageError
from digitq.protocol.formats import buckets

KEY = "a2V5"
TOKEN = "sv=2026&sig=5ec3e7"
ACCOUNT = {"blob_storage_scheme": "https", "dfs_storage_scheme": "https"}
CHINA = {
    "blob_storage_authority": ".blob.core.chinacloudapi.cn",
    "dfs_storage_authority": ".dfs.core.chinacloudapi.cn",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ACCOUNT", "KEY", "SAS_TOKEN", "CONNECTION_STRING"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    buckets._connect.cache_clear()
    yield
    buckets._connect.cache_clear()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ACCOUNT": "a", "KEY": KEY, "SAS_TOKEN": TOKEN}, {**ACCOUNT, "account_key": KEY}),
        ({"ACCOUNT": "a", "SAS_TOKEN": TOKEN}, {**ACCOUNT, "sas_token": f"?{TOKEN}"}),
        ({"ACCOUNT": "a", "SAS_TOKEN": f"?{TOKEN}"}, {**ACCOUNT, "sas_token": f"?{TOKEN}"}),
        (
            {
                "CONNECTION_STRING": f"AccountName=a;AccountKey={KEY}==;"
                "EndpointSuffix=core.chinacloudapi.cn"
            },
            {**ACCOUNT, **CHINA, "account_key": f"{KEY}=="},
        ),
        (
            {
                "CONNECTION_STRING": "BlobEndpoint=https://a.blob.core.chinacloudapi.cn/;"
                f"SharedAccessSignature={TOKEN}",
                "ACCOUNT": "a",
            },
            {**ACCOUNT, **CHINA, "sas_token": f"?{TOKEN}"},
        ),
        (
            {
                "CONNECTION_STRING": f"AccountName=a;AccountKey={KEY};"
                "BlobEndpoint=http://127.0.0.1:10000/a;"
            },
            {
                "account_key": KEY,
                "blob_storage_authority": "127.0.0.1:10000",
                "dfs_storage_authority": "127.0.0.1:10000",
                "blob_storage_scheme": "http",
                "dfs_storage_scheme": "http",
            },
        ),
    ],
)
def test_azure_is_found_as_its_own_tools_find_it(
    variables: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    assert buckets.open_bucket("az://scans/x")[0] == pyarrow.fs.AzureFileSystem("a", **expected)


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("s3://scans/x", "AWS_ENDPOINT_URL", "localhost:9000"),
        ("s3://scans/x", "AWS_ENDPOINT_URL_S3", "localhost:9000"),
    ],
)
def test_a_server_needs_http(
    url: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} must begin with http:// or https://"):
        buckets.open_bucket(url)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            "When reading information for key 'x' in bucket 'b': AWS Error NETWORK_CONNECTION "
            "during HeadObject operation: curlCode: 6, Could not resolve hostname; Details: it",
            "Could not resolve hostname",
        ),
        (
            "When listing objects: AWS Error UNKNOWN (HTTP status 412) during ListObjectsV2 "
            "operation: ",
            "HTTP status 412",
        ),
        (
            "AWS Error SLOW_DOWN during HeadObject operation: No response body.",
            "SLOW_DOWN",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body.",
            "it refuses the request: are AWS_REGION and the key right?",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 501) during UploadPart operation: Unable to parse "
            "ExceptionName: NotImplemented Message: The x-amz-checksum-crc64nvme algorithm is "
            "not supported. (Request ID: tx)",
            "the server lacks one of Amazon's checksums: set "
            "AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
        ),
        (
            f"Failed to list blobs in a directory: b/x: http://a/se?{TOKEN} Azure Error: [] Fail "
            "to get a new connection for: https://a.dfs.core. Could not connect to server\nx",
            "Fail to get a new connection for: https://a.dfs.core. Could not connect to server",
        ),
        (
            "Unknown error: Check for Hierarchical Namespace support on 'https://a' failed: "
            "St13runtime_error: Unexpected end of Base64 encoded string.",
            "Unexpected end of Base64 encoded string.",
        ),
        (
            "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of "
            "PerformWork() - CURL error [7]=Could not connect to server error_info={x}",
            "Could not connect to server",
        ),
    ],
)
def test_an_error_is_told_in_a_line_without_noise(error: str, told: str) -> None:
    with pytest.raises(StoreError) as raised, buckets.store_errors("s3://b/x"):
        raise OSError(error)
    assert str(raised.value) == f"can't read s3://b/x: {told}"


@pytest.mark.parametrize(
    "error",
    [
        "GetProperties failed for 'x'. Azure Error: [AuthenticationFailed] 403 Server failed to",
        "Permanent error, with a last message of Could not create a OAuth2 access token to",
        "AuthenticationExceptionE: Failed to get token from DefaultAzureCredential.",
    ],
)
def test_credentials_that_are_missing_give_no_rights(error: str) -> None:
    with pytest.raises(PermissionError, match="no rights"), buckets.store_errors("az://b/x"):
        raise OSError(error)
