import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

sns.set_theme(style="whitegrid")
rng = np.random.default_rng(1)
n = 300
df = pd.DataFrame({"hours": rng.uniform(0, 10, n)})
df["score"] = 40 + 5 * df["hours"] + rng.normal(0, 4, n)
df["sleep"] = 9 - 0.3 * df["hours"] + rng.normal(0, 0.5, n)
df["group"] = np.where(df["hours"] > 5, "many hours", "few hours")

corr = df.corr(numeric_only=True)
print(corr.round(2))
print(f"Correlation of hours and score: {corr.loc['hours', 'score']:.3f}")

# Two figures, one after the other
plt.figure(figsize=(6, 6))
sns.heatmap(corr, annot=True, cmap="coolwarm", vmin=-1, vmax=1)
plt.title("Correlations")
plt.show()

plt.figure(figsize=(10, 4))
sns.boxplot(data=df, x="group", y="score", hue="group", legend=False)
plt.title("Scores by group")
plt.show()

df.groupby("group")[["score", "sleep"]].mean().round(2)
