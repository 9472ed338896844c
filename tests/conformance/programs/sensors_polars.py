import polars as pl

lazy = (
    pl.scan_csv("sensors.csv", try_parse_dates=True)
    .filter(pl.col("status") == "ok")
    .with_columns((pl.col("temperature") * 9 / 5 + 32).alias("fahrenheit"))
    .group_by("sensor")
    .agg(
        pl.len().alias("readings"),
        pl.col("temperature").mean().round(4).alias("mean_c"),
        pl.col("fahrenheit").max().round(2).alias("max_f"),
    )
    .sort("sensor")
)
df = lazy.collect()
print(df)
for row in df.iter_rows(named=True):
    print(f"{row['sensor']}: {row['readings']} readings, mean {row['mean_c']:.4f} C, max {row['max_f']:.2f} F")

hottest = df.sort("max_f", descending=True).row(0, named=True)
print("Hottest sensor:", hottest["sensor"])
df.write_json("summary.json")
