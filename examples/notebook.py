import digitq

results = digitq.classify("scans")
print(results)  # <Results: 300 images, 1 with an error, 9 more to review>
for answer in results:  # in the order of the images
    print(answer.id, answer.label, answer.confidence, answer.error)
print(results[0].probabilities)
print(results.table)  # a pyarrow.Table; results.to_pandas(), where pandas is installed
