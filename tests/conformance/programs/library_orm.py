from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    year: Mapped[int]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


engine = create_engine("sqlite:///library.db")
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add_all(
        [
            Author(name="Ursula K. Le Guin", books=[Book(title="The Dispossessed", year=1974), Book(title="Tehanu", year=1990)]),
            Author(name="Stanisław Lem", books=[Book(title="Solaris", year=1961)]),
        ]
    )
    session.commit()

with Session(engine) as session:
    rows = session.execute(
        select(Author.name, func.count(Book.id), func.min(Book.year)).join(Book).group_by(Author.id).order_by(Author.name)
    ).all()
    for name, books, first in rows:
        print(f"{name}: {books} book(s), first in {first}")
    session.delete(session.scalars(select(Author).where(Author.name.like("Ursula%"))).one())
    session.commit()
    print("Books left:", session.scalars(select(Book.title)).all())
