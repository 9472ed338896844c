import pandas as pd
import matplotlib.pyplot as plt

# Load the data
df = pd.read_csv('sales.csv', parse_dates=['date'])
print(f"Loaded {len(df)} rows")
print(df.head())
print(df.dtypes)

# Clean it up
df['region'] = df['region'].str.strip().str.title()
missing = df['units'].isna().sum()
print(f"\nRows with missing units: {missing}")
df = df.dropna(subset=['units'])
df['revenue'] = df['units'] * df['unit_price']

# Revenue by region
by_region = df.groupby('region')['revenue'].sum().sort_values(ascending=False)
print("\nRevenue by region:")
for region, revenue in by_region.items():
    print(f"  {region}: ${revenue:,.2f}")
print(f"\nTotal revenue: ${df['revenue'].sum():,.2f}")
print(f"Best region: {by_region.idxmax()}")

# Best month
monthly = df.set_index('date')['revenue'].resample('ME').sum()
print(f"Best month: {monthly.idxmax():%Y-%m} (${monthly.max():,.2f})")

# Bar chart
fig, ax = plt.subplots(figsize=(8, 5))
ax.bar(by_region.index, by_region.values, color='steelblue', width=0.5)
ax.set_title('Revenue by Region', fontsize=14, fontweight='bold')
ax.set_xlabel('Region')
ax.set_ylabel('Revenue ($)')
plt.tight_layout()
plt.show()
