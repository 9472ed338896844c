import os
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

n = 100_000
df = pd.DataFrame(
    {
        "id": np.arange(n),
        "year": 2020 + np.arange(n) % 4,
        "category": np.array(["a", "b", "c", "d", "e"])[np.arange(n) % 5],
        "value": np.arange(n) * 0.5,
    }
)

table = pa.Table.from_pandas(df, preserve_index=False)
pq.write_table(table, "data.parquet", compression="snappy", row_group_size=25_000)
df.to_csv("data.csv", index=False)
print(f"CSV is {os.path.getsize('data.csv') / os.path.getsize('data.parquet'):.1f}x larger than Parquet")

meta = pq.ParquetFile("data.parquet").metadata
print("Row groups:", meta.num_row_groups, "rows:", meta.num_rows)
print("Schema:", {field.name: str(field.type) for field in table.schema})

# Only the needed columns, with a filter pushed down
subset = pd.read_parquet("data.parquet", columns=["id", "value"], filters=[("category", "==", "c"), ("year", "==", 2021)])
print("Filtered rows:", len(subset), "sum of ids:", int(subset["id"].sum()))

# A partitioned dataset
pq.write_to_dataset(table, "dataset", partition_cols=["year"])
print("Partitions:", sorted(os.listdir("dataset")))
dataset = ds.dataset("dataset", partitioning="hive")
found = dataset.to_table(filter=pc.field("year") == 2022, columns=["value"])
print("Sum for 2022:", pc.sum(found["value"]).as_py())
