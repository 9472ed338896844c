import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from statsmodels.tsa.holtwinters import ExponentialSmoothing

# Four years of monthly data: trend 2 per month, season of amplitude 20
index = pd.date_range("2021-01-01", periods=48, freq="MS")
season = 20 * np.sin(2 * np.pi * np.arange(48) / 12)
sales = pd.Series(100 + 2 * np.arange(48) + season, index=index, name="sales")

print("Rolling mean, last:", sales.rolling(12).mean().iloc[-1].round(2))
print("By year:", sales.groupby(sales.index.year).mean().round(1).to_dict())
print("Growth:", f"{sales.resample('YS').sum().pct_change().iloc[-1]:.1%}")

fit = ExponentialSmoothing(sales, trend="add", seasonal="add", seasonal_periods=12).fit()
forecast = fit.forecast(12)
truth = 100 + 2 * np.arange(48, 60) + 20 * np.sin(2 * np.pi * np.arange(48, 60) / 12)
print(f"Largest error of the forecast: {np.abs(forecast.values - truth).max():.3f}")

ax = sales.plot(figsize=(9, 4), label="history")
forecast.plot(ax=ax, label="forecast", style="--")
plt.legend()
plt.savefig("forecast.png", dpi=100)
print("Saved forecast.png")
