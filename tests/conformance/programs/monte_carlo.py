import multiprocessing as mp
import os
import random
from concurrent.futures import ProcessPoolExecutor


def throw_darts(args):
    seed, n = args
    rng = random.Random(seed)
    inside = sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(n))
    return inside, os.getpid()


n_workers, n = 4, 100_000
print("CPUs:", mp.cpu_count())
with mp.Pool(n_workers) as pool:
    results = pool.map(throw_darts, [(seed, n) for seed in range(8)])

inside = sum(r[0] for r in results)
print(f"Darts inside: {inside}")
print(f"Pi is about {4 * inside / (8 * n):.4f}")
print("In other processes:", os.getpid() not in {r[1] for r in results})

with ProcessPoolExecutor(max_workers=2) as executor:
    squares = list(executor.map(pow, range(5), [2] * 5))
print("Squares:", squares)
