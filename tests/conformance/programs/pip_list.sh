echo "Python: $(python3 --version)"
pip list --format=json 2>/dev/null > packages.json
echo "Packages: $(jq length packages.json)"
python3 - <<'EOF' > installed.txt
from importlib.metadata import version
for name in ("numpy", "pandas", "scikit-learn", "openpyxl", "duckdb", "polars"):
    print(name, version(name))
EOF
while read -r name installed; do
  listed=$(jq -r --arg n "$name" '.[] | select(.name | ascii_downcase == $n) | .version' packages.json)
  [ "$listed" = "$installed" ] && echo "$name ok" || echo "$name differs: $listed $installed"
done < installed.txt
