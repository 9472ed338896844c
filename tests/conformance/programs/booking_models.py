from datetime import date
from enum import Enum
from typing import Annotated, Literal
from pydantic import BaseModel, EmailStr, Field, ValidationError, computed_field, field_validator, model_validator


class Room(str, Enum):
    single = "single"
    double = "double"


class Guest(BaseModel):
    name: Annotated[str, Field(min_length=2)]
    email: EmailStr


class Booking(BaseModel):
    guest: Guest
    room: Room
    arrival: date
    departure: date
    board: Literal["none", "breakfast", "full"] = "none"
    rate: float = Field(gt=0)

    @field_validator("rate")
    @classmethod
    def round_rate(cls, value):
        return round(value, 2)

    @model_validator(mode="after")
    def check_dates(self):
        if self.departure <= self.arrival:
            raise ValueError("departure must be after arrival")
        return self

    @computed_field
    @property
    def total(self) -> float:
        return (self.departure - self.arrival).days * self.rate


booking = Booking.model_validate_json(
    '{"guest": {"name": "Ana", "email": "ana@mail.org"}, "room": "double",'
    ' "arrival": "2025-06-01", "departure": "2025-06-05", "rate": "99.999"}'
)
print("Total:", booking.total)
print(booking.model_dump_json())

try:
    Booking(guest={"name": "B", "email": "nope"}, room="suite", arrival="2025-06-05", departure="2025-06-01", rate=-1)
except ValidationError as e:
    for err in e.errors():
        print("Invalid:", ".".join(map(str, err["loc"])), err["type"])
try:
    booking.model_copy().model_validate(booking.model_dump() | {"departure": "2025-05-01"})
except ValidationError as e:
    print(e.errors()[0]["msg"])
