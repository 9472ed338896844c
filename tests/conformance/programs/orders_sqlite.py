import csv
import sqlite3
import pandas as pd

conn = sqlite3.connect("shop.db")
cur = conn.cursor()
cur.executescript("""
DROP TABLE IF EXISTS orders;
DROP TABLE IF EXISTS customers;
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id INTEGER REFERENCES customers(id),
    amount REAL CHECK (amount >= 0),
    placed_on TEXT
);
CREATE INDEX idx_orders_customer ON orders(customer_id);
""")
customers = [(1, "Alice", "DE"), (2, "Bob", "US"), (3, "Chloé", "FR"), (4, "Dmitri", "US")]
cur.executemany("INSERT INTO customers VALUES (?, ?, ?)", customers)
with open("orders.csv", newline="") as f:
    rows = [(int(r["customer_id"]), float(r["amount"]), r["placed_on"]) for r in csv.DictReader(f)]
cur.executemany("INSERT INTO orders (customer_id, amount, placed_on) VALUES (?, ?, ?)", rows)
conn.commit()
print(f"Inserted {len(rows)} orders")

query = """
SELECT c.name, c.country, COUNT(o.id) AS orders, ROUND(COALESCE(SUM(o.amount), 0), 2) AS spent,
       RANK() OVER (ORDER BY SUM(o.amount) DESC) AS place
FROM customers c LEFT JOIN orders o ON o.customer_id = c.id
GROUP BY c.id ORDER BY spent DESC
"""
report = pd.read_sql_query(query, conn)
print(report.to_string(index=False))

try:
    cur.execute("INSERT INTO orders (customer_id, amount) VALUES (1, -5)")
except sqlite3.IntegrityError as e:
    print("Rejected:", e)
conn.close()
print(f"Top customer: {report.iloc[0]['name']}")
print(f"Grand total: {report['spent'].sum():.2f}")
