import numpy as np
import pandas as pd
import xgboost as xgb
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split

rng = np.random.default_rng(42)
n = 1000
df = pd.DataFrame(
    {
        "area": rng.uniform(40, 200, n),
        "rooms": rng.integers(1, 7, n),
        "age": rng.uniform(0, 80, n),
        "noise": rng.normal(size=n),
    }
)
df["price"] = 3000 * df["area"] + 15000 * df["rooms"] - 800 * df["age"] + rng.normal(0, 5000, n)

X, y = df.drop(columns="price"), df["price"]
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
model = xgb.XGBRegressor(n_estimators=60, max_depth=4, learning_rate=0.3)
model.fit(X_train, y_train, eval_set=[(X_test, y_test)], verbose=False)
pred = model.predict(X_test)
print(f"R2: {r2_score(y_test, pred):.4f}")
print(f"MAE: {mean_absolute_error(y_test, pred):.0f}")
ranking = pd.Series(model.feature_importances_, index=X.columns).sort_values(ascending=False)
print("Features by importance:", list(ranking.index))

model.save_model("model.json")
reloaded = xgb.XGBRegressor()
reloaded.load_model("model.json")
print("Same predictions after reload:", bool(np.allclose(pred, reloaded.predict(X_test))))
