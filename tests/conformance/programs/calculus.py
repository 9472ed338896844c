import sympy as sp
from IPython.display import display

x, y, n = sp.symbols("x y n")

print("Derivative:", sp.diff(sp.sin(x) ** 2 * sp.exp(x), x))
print("Integral:", sp.integrate(sp.exp(-x**2), (x, -sp.oo, sp.oo)))
print("Roots:", sp.solve(x**3 - 6 * x**2 + 11 * x - 6, x))
print("Limit:", sp.limit(sp.sin(x) / x, x, 0))
print("Series:", sp.series(sp.cos(x), x, 0, 6))
print("Sum:", sp.factor(sp.summation(n**2, (n, 1, x))))
print("System:", sp.solve([x + y - 10, x - y - 2], [x, y]))
matrix = sp.Matrix([[2, 1], [1, 2]])
print("Eigenvalues:", matrix.eigenvals())
print("2**200 =", sp.Integer(2) ** 200)
print("Pi:", sp.N(sp.pi, 50))
display(sp.Integral(sp.sqrt(1 / x), x))
