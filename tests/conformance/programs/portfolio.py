import cvxpy as cp
import numpy as np

assets = ["Stocks", "Bonds", "Gold", "Cash"]
sigma = np.array([0.20, 0.08, 0.15, 0.02])
expected = np.array([0.09, 0.04, 0.05, 0.01])
covariance = np.diag(sigma**2)

# Minimum variance
w = cp.Variable(4)
variance = cp.quad_form(w, covariance)
problem = cp.Problem(cp.Minimize(variance), [cp.sum(w) == 1, w >= 0])
problem.solve()
print("Status:", problem.status)
for name, weight in zip(assets, w.value):
    print(f"{name}: {weight:.4f}")
print(f"Volatility: {np.sqrt(problem.value):.5f}")

# With a target return
target = cp.Problem(cp.Minimize(variance), [cp.sum(w) == 1, w >= 0, expected @ w >= 0.05])
target.solve()
print(f"Return reached: {expected @ w.value:.4f}")
print(f"Volatility at 5 %: {np.sqrt(target.value):.4f}")

# An impossible one
impossible = cp.Problem(cp.Minimize(variance), [cp.sum(w) == 1, w >= 0, expected @ w >= 0.5])
impossible.solve()
print("Target of 50 %:", impossible.status)
