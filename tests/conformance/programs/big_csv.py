import os
import time
import duckdb
import numpy as np
import pandas as pd
import polars as pl

# Generate about 200 MB of data
rng = np.random.default_rng(2024)
n = 4_700_000
start = time.time()
pl.DataFrame(
    {
        "id": np.arange(n),
        "store": np.array(["Berlin", "Lisbon", "Osaka", "Quito"])[np.arange(n) % 4],
        "product": rng.integers(1000, 9999, n),
        "quantity": np.arange(n) % 7 + 1,
        "price": np.round(rng.uniform(1, 500, n), 2),
        "note": np.array(["regular order", "express delivery"])[np.arange(n) % 2],
    }
).write_csv("big.csv")
size = os.path.getsize("big.csv")
print(f"big.csv: {size / 1e6:.0f} MB, written in {time.time() - start:.1f} s")

# Aggregate in chunks so that it fits in memory
start = time.time()
totals = None
rows = 0
for chunk in pd.read_csv("big.csv", usecols=["store", "quantity"], chunksize=1_000_000):
    rows += len(chunk)
    part = chunk.groupby("store")["quantity"].sum()
    totals = part if totals is None else totals.add(part, fill_value=0)
print(f"pandas: {rows} rows in {time.time() - start:.1f} s")
for store, quantity in totals.items():
    print(f"{store}: {int(quantity)}")

# Cross-check with DuckDB
start = time.time()
check = duckdb.sql("SELECT store, sum(quantity)::BIGINT AS q, avg(price) AS p FROM 'big.csv' GROUP BY store").df()
print(f"duckdb: {time.time() - start:.1f} s")
print("Both agree:", dict(zip(check["store"], check["q"])) == {k: int(v) for k, v in totals.items()})
print(f"Mean price: {check['p'].mean():.1f}")
