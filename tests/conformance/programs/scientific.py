import numpy as np
from scipy import integrate, interpolate, linalg, optimize, signal, stats

# 1. Minimise the Rosenbrock function
result = optimize.minimize(optimize.rosen, x0=[-1.2, 1.0, 0.7], method="BFGS", jac=optimize.rosen_der)
print("Minimum at:", np.round(result.x, 4).tolist(), "success:", result.success)

# 2. Fit an exponential decay
rng = np.random.default_rng(0)
t = np.linspace(0, 10, 200)
y = 5.0 * np.exp(-0.7 * t) + 1.2 + rng.normal(0, 0.02, t.size)
params, covariance = optimize.curve_fit(lambda t, a, k, c: a * np.exp(-k * t) + c, t, y, p0=(1, 1, 1))
print("Fit:", " ".join(f"{p:.2f}" for p in params))

# 3. Integrate
value, error = integrate.quad(lambda x: np.exp(-(x**2)), -np.inf, np.inf)
print(f"Gaussian integral: {value:.10f}")

# 4. Solve an ODE
solution = integrate.solve_ivp(lambda t, y: [y[1], -y[0]], (0, 2 * np.pi), [1, 0], rtol=1e-8, atol=1e-8)
print(f"Oscillator after one period: {solution.y[0, -1]:.5f}")

# 5. Linear programme: maximise 3x + 2y
lp = optimize.linprog(c=[-3, -2], A_ub=[[1, 1], [1, 3]], b_ub=[4, 6], bounds=[(0, 3), (0, None)])
print(f"LP optimum: {-lp.fun:.1f} at {lp.x.tolist()}")

# 6. A t-test
a, b = stats.norm.rvs(10, 1, 200, random_state=1), stats.norm.rvs(10.5, 1, 200, random_state=2)
print(f"t-test significant: {stats.ttest_ind(a, b).pvalue < 0.05}")

# 7. Find peaks and interpolate
peaks, _ = signal.find_peaks(np.sin(np.linspace(0, 10 * np.pi, 1000)))
print("Peaks:", len(peaks))
spline = interpolate.CubicSpline([0, 1, 2, 3], [0, 1, 8, 27])
print(f"Spline at 1.5: {spline(1.5):.4f}")
print("Determinant:", round(linalg.det(np.array([[4.0, 2.0], [1.0, 3.0]])), 6))
