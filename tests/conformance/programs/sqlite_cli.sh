rm -f inventory.db
sqlite3 inventory.db <<'EOF'
.mode csv
.import inventory.csv items
.mode column
SELECT category, COUNT(*) AS items, SUM(CAST(stock AS INTEGER)) AS stock FROM items GROUP BY category ORDER BY category;
EOF
echo "Out of stock: $(sqlite3 inventory.db "SELECT COUNT(*) FROM items WHERE CAST(stock AS INTEGER) = 0")"
sqlite3 -json inventory.db "SELECT sku, CAST(stock AS INTEGER) AS stock FROM items ORDER BY CAST(stock AS INTEGER) DESC LIMIT 2" > top.json
jq -c . top.json
