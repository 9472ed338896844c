import re
from collections import Counter, defaultdict
from datetime import datetime

LINE = re.compile(
    r'(?P<ip>\S+) - - \[(?P<time>[^\]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3}) (?P<size>\d+|-)'
)

hits, errors, sent = Counter(), Counter(), defaultdict(int)
per_hour = Counter()
bad = 0
with open("access.log") as f:
    for line in f:
        match = LINE.match(line)
        if not match:
            bad += 1
            continue
        hits[match["path"]] += 1
        if match["status"].startswith("5"):
            errors[match["path"]] += 1
        if match["size"] != "-":
            sent[match["ip"]] += int(match["size"])
        when = datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z")
        per_hour[when.hour] += 1

print(f"Requests: {sum(hits.values())}")
print(f"Malformed lines: {bad}")
print("Top pages:")
for path, count in hits.most_common(3):
    print(f"  {path}: {count}")
print(f"Server errors: {sum(errors.values())}")
ip, amount = max(sent.items(), key=lambda item: item[1])
print(f"Heaviest client: {ip} with {amount} bytes")
print(f"Busiest hour: {per_hour.most_common(1)[0][0]}")
