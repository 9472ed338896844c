echo "Orders: $(jq length orders.json)"
jq -r '.[] | select(.status == "paid") | [.customer, .total] | @csv' orders.json | tr -d '"' | sort > paid.csv
echo "Paid: $(wc -l < paid.csv)"
echo "By customer:"
awk -F, '{sum[$1] += $2; n[$1]++} END {for (c in sum) printf "%s %.2f %d\n", c, sum[c], n[c]}' paid.csv | sort -k2,2nr
sed -E 's/^([a-z]+),/\U\1\E,/' paid.csv | head -1 > first.txt
echo "First: $(cat first.txt)"
jq '[.[] | {customer, total}] | group_by(.customer) | map({(.[0].customer): (map(.total) | add)}) | add' orders.json > totals.json
jq -S -c 'map_values(. * 100 | round)' totals.json
