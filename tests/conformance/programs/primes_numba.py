import numpy as np
from numba import njit


@njit
def sieve(n):
    is_prime = np.ones(n + 1, dtype=np.bool_)
    is_prime[:2] = False
    for i in range(2, int(n**0.5) + 1):
        if is_prime[i]:
            for j in range(i * i, n + 1, i):
                is_prime[j] = False
    return is_prime


primes = np.flatnonzero(sieve(5_000_000))
print("Primes below 5 million:", len(primes))
print("Largest:", primes[-1])
