import duckdb

con = duckdb.connect()
print(con.sql("DESCRIBE SELECT * FROM 'trips.csv'"))

result = con.sql("""
    SELECT zone,
           count(*)                         AS trips,
           round(avg(fare), 4)              AS avg_fare,
           round(sum(fare + tip), 2)        AS income,
           quantile_cont(distance_km, 0.5)  AS median_km
    FROM read_csv_auto('trips.csv')
    WHERE fare > 0
    GROUP BY zone
    ORDER BY income DESC
""").df()
print(result.to_string(index=False))

# A window function and an export
con.sql("""
    COPY (
        SELECT *, row_number() OVER (PARTITION BY zone ORDER BY fare DESC) AS place
        FROM 'trips.csv' QUALIFY place <= 3
    ) TO 'top_fares.csv' (HEADER)
""")
print("Rows exported:", con.execute("SELECT count(*) FROM 'top_fares.csv'").fetchone()[0])
