import asyncio

limit = asyncio.Semaphore(3)
running, most = 0, 0


async def fetch(i):
    """Pretend to fetch a page"""
    global running, most
    async with limit:
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        if i == 7:
            raise ValueError(f"page {i} is broken")
        return i * i


results = await asyncio.gather(*(fetch(i) for i in range(9)), return_exceptions=True)
print("Results:", [r if isinstance(r, int) else f"{type(r).__name__}: {r}" for r in results])
print("At most at once:", most)

queue = asyncio.Queue()


async def producer():
    for i in range(5):
        await queue.put(i)
    await queue.put(None)


async def consumer():
    got = []
    while (item := await queue.get()) is not None:
        got.append(item)
    return got


_, got = await asyncio.gather(producer(), consumer())
print("Consumed:", got)
try:
    async with asyncio.timeout(0.05):
        await asyncio.sleep(30)
except TimeoutError:
    print("Timed out as expected")
