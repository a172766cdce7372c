"""The contract between producer and worker: settings, messages, schemas and the ledger."""
