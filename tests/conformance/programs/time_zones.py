from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones
import pandas as pd
import pytz

meeting = datetime(2025, 3, 28, 15, 30, tzinfo=ZoneInfo("America/New_York"))
for city in ("Europe/London", "Asia/Kolkata", "Australia/Sydney"):
    print(f"{city}: {meeting.astimezone(ZoneInfo(city)):%Y-%m-%d %H:%M %Z}")

# Daylight saving: the night when Berlin skips an hour
berlin = ZoneInfo("Europe/Berlin")
before = datetime(2025, 3, 30, 0, 30, tzinfo=berlin)
after = (before.astimezone(timezone.utc) + timedelta(hours=2)).astimezone(berlin)
print("Two hours later:", after.isoformat())
print("Offset changed by:", after.utcoffset() - before.utcoffset())

# The ambiguous hour in autumn
first = datetime(2025, 10, 26, 2, 30, fold=0, tzinfo=berlin)
second = first.replace(fold=1)
print("Ambiguous:", first.utcoffset(), second.utcoffset())

index = pd.date_range("2025-03-29 12:00", periods=3, freq="24h", tz="UTC").tz_convert("Europe/Berlin")
print("Pandas:", [t.strftime("%d %H:%M") for t in index])
print("pytz:", pytz.timezone("Asia/Tokyo").localize(datetime(2025, 1, 1)).astimezone(pytz.utc).isoformat())
print("Zones known:", len(available_timezones()) > 400)
