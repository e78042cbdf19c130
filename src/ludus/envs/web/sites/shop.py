"""A shop: a list of products with a search, their pages, a cart, orders, and the customer's account."""

from __future__ import annotations

import sqlite3

import numpy as np

from ludus.envs.small.shop import COLOURS, ITEMS
from ludus.envs.web.sites.goal import Goal, Hand, Kind, stop
from ludus.envs.web.sites.web import (
    Answer,
    Ask,
    Route,
    act,
    button,
    every,
    field,
    form,
    heading,
    hidden,
    line,
    link,
    links,
    missing,
    one,
    page,
    paged,
    rows,
    said,
)
from ludus.envs.world import one_of

CITIES = tuple("Rome Oslo Lima Cairo Paris Delhi".split())
SHOWN = 6  # rows of a page

SCHEMA = """
create table products(id integer primary key, name text, price int, stock int);
create table cart(product int, amount int);
create table orders(id integer primary key, product int, amount int, status text);
create table account(city text);
"""


def fill(database: sqlite3.Connection, rng: np.random.Generator, size: int) -> None:
    """`size` products, and half as many orders of different ones."""
    names = [f"{colour} {item}" for colour in COLOURS for item in ITEMS]
    chosen = [names[at] for at in rng.permutation(len(names))[:size]]
    database.executemany(
        "insert into products values (?, ?, ?, ?)",
        [(at, name, int(rng.integers(10, 100)), 9) for at, name in enumerate(chosen, 1)],
    )
    numbers = sorted(rng.permutation(np.arange(10, 100))[: max(1, size // 2)].tolist())
    products = rng.permutation(size)[: len(numbers)].tolist()
    database.executemany(
        "insert into orders values (?, ?, ?, ?)",
        [
            (number, product + 1, 1, "sent" if rng.random() < 0.3 else "open")
            for number, product in zip(numbers, products, strict=True)
        ],
    )
    database.execute("insert into account values (?)", (one_of(rng, CITIES),))


# ---------------------------------------------------------------------------------------------- pages

TOP = links(
    ("shop", "/shop"),
    ("cart", "/shop/cart"),
    ("orders", "/shop/orders"),
    ("account", "/shop/account"),
)


def front(db: sqlite3.Connection, ask: Ask) -> Answer:
    wanted = said(ask, "q")
    found = [
        row
        for row in every(db, "select id, name from products order by id")
        if wanted.casefold() in row[1].casefold()
    ]
    shown, around = paged(ask, found, SHOWN)
    look = form("/shop", field("search", wanted, "q"), button("find"), method="get")
    items = [link(name, f"/shop/item/{number}") for number, name in shown]
    return Answer(page("shop", TOP, look, rows(items), around))


def item(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    found = one(db, "select name, price, stock from products where id = ?", int(number))
    if found is None:
        return missing()
    name, price, stock = found
    add = form("/shop/cart", hidden("item", number), field("amount", "1"), button("add"))
    return Answer(
        page(name, TOP, heading(name), line(f"price {price}"), line(f"stock {stock}"), add)
    )


def cart(db: sqlite3.Connection, ask: Ask) -> Answer:
    there = every(
        db, "select id, name, amount from cart join products on product = id order by cart.rowid"
    )
    each = [
        f"{amount} {name} {act('remove', '/shop/remove', hidden('item', number))}"
        for number, name, amount in there
    ]
    buy = act("order", "/shop/order") if there else ""
    return Answer(page("cart", TOP, heading("cart"), rows(each), buy))


def add(db: sqlite3.Connection, ask: Ask) -> Answer:
    amount, number = said(ask, "amount"), said(ask, "item")
    if not (amount in set("123456789") and number.isdecimal() and len(number) < 9):
        return Answer(page("cart", TOP, heading("no such amount")), 400)
    if one(db, "select 1 from products where id = ?", int(number)) is None:
        return missing()
    db.execute("delete from cart where product = ?", (int(number),))
    db.execute("insert into cart values (?, ?)", (int(number), int(amount)))
    return Answer(to="/shop/cart")


def remove(db: sqlite3.Connection, ask: Ask) -> Answer:
    db.execute("delete from cart where product = ?", (said(ask, "item"),))
    return Answer(to="/shop/cart")


def buy(db: sqlite3.Connection, ask: Ask) -> Answer:
    db.execute(
        "insert into orders(product, amount, status) select product, amount, 'open' from cart order by rowid"
    )
    db.execute("delete from cart")
    return Answer(to="/shop/orders")


ORDERS = "select orders.id, name, amount, status from orders join products on product = products.id"


def orders(db: sqlite3.Connection, ask: Ask) -> Answer:
    found = every(db, f"{ORDERS} order by orders.id")
    shown, around = paged(ask, found, SHOWN)
    each = [
        f"{link(f'order {number}', f'/shop/order/{number}')} {name} {status}"
        for number, name, _, status in shown
    ]
    return Answer(page("orders", TOP, heading("orders"), rows(each), around))


def order(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    found = one(db, f"{ORDERS} where orders.id = ?", int(number))
    if found is None:
        return missing()
    _, name, amount, status = found
    cancel = act("cancel", f"/shop/order/{number}/cancel") if status == "open" else ""
    told = line(f"{amount} {name} {status}")
    return Answer(page(f"order {number}", TOP, heading(f"order {number}"), told, cancel))


def cancel(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    db.execute(
        "update orders set status = 'cancelled' where id = ? and status = 'open'", (int(number),)
    )
    return Answer(to=f"/shop/order/{number}")


def account(db: sqlite3.Connection, ask: Ask) -> Answer:
    (city,) = one(db, "select city from account")
    change = form("/shop/account", field("city", city), button("save"))
    return Answer(page("account", TOP, heading("account"), change))


def save(db: sqlite3.Connection, ask: Ask) -> Answer:
    db.execute("update account set city = ?", (said(ask, "city"),))
    return Answer(to="/shop/account")


N = r"([0-9]{1,9})"
ROUTES = (
    Route("GET", "/shop", front),
    Route("GET", f"/shop/item/{N}", item),
    Route("GET", "/shop/cart", cart),
    Route("POST", "/shop/cart", add),
    Route("POST", "/shop/remove", remove),
    Route("POST", "/shop/order", buy),
    Route("GET", "/shop/orders", orders),
    Route("GET", f"/shop/order/{N}", order),
    Route("POST", f"/shop/order/{N}/cancel", cancel),
    Route("GET", "/shop/account", account),
    Route("POST", "/shop/account", save),
)


# ---------------------------------------------------------------------------------------------- tasks


def price_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    name, price = one_of(rng, every(db, "select name, price from products order by id"))
    return Goal("price", f"answer the price of the {name}", "/shop", (name,), answer=str(price))


def to_item(hand: Hand, name: str) -> str:
    """Click on it, search for it, or go where one can."""
    return (
        hand.click("link", name)
        or (hand.fill("textbox", "search", name, enter=True) if hand.path == "/shop" else None)
        or hand.go("/shop", "shop")
    )


def price(hand: Hand, name: str) -> str:
    return stop(hand.read(r"^price ([0-9]+)")) if hand.on(name) else to_item(hand, name)


def cancel_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    there = every(db, f"{ORDERS} where status = 'open' order by orders.id")
    if not there:
        return None
    number, name, _, _ = one_of(rng, there)
    writes = (("update orders set status = 'cancelled' where id = ?", (number,)),)
    return Goal("cancel", f"cancel the order of the {name}", "/shop", (name,), writes)


def cancel_it(hand: Hand, name: str) -> str:
    if hand.read(rf"^[0-9] {name} (cancelled)"):
        return stop()
    if hand.read(rf"^[0-9] ({name})") and (click := hand.click("button", "cancel")):
        return click
    return (
        hand.row(rf"\[([0-9]+)\] link 'order [0-9]+' {name} open")
        or (stop() if hand.read(rf"link 'order [0-9]+' {name} (cancelled)") else None)
        or (hand.click("link", "next") if hand.path == "/shop/orders" else None)
        or hand.go("/shop/orders", "orders")
    )


def city_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    city = one_of(rng, CITIES)
    if one(db, "select city from account") == (city,):
        return None
    writes = (("update account set city = ?", (city,)),)
    return Goal("city", f"change my city to {city}", "/shop", (city,), writes)


def change_city(hand: Hand, city: str) -> str:
    """What a field holds and what was saved look the same, so it is typed and saved with one action."""
    if not hand.on("account"):
        return hand.go("/shop/account", "account")
    return hand.fill("textbox", "city", city, enter=True) or stop()


def buy_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    number, name = one_of(rng, every(db, "select id, name from products order by id"))
    amount = int(rng.integers(2, 6))
    writes = (
        ("insert into orders(product, amount, status) values (?, ?, 'open')", (number, amount)),
    )
    return Goal("buy", f"order {amount} of the {name}", "/shop", (str(amount), name), writes)


def buy_it(hand: Hand, amount: str, name: str) -> str:
    if hand.on("orders"):
        # New orders come last, and one of these may have been there before: the cart tells what is still to do.
        return hand.click("link", "next") or stop()
    if hand.on("cart") and hand.read(rf"^({amount}) {name} "):
        return hand.click("button", "order") or stop()
    if hand.on(name):
        return hand.fill("textbox", "amount", amount) or hand.click("button", "add") or stop()
    return to_item(hand, name)


KINDS = (
    Kind("price", price_goal, price, 2),
    Kind("cancel", cancel_goal, cancel_it, 4),
    Kind("city", city_goal, change_city, 3),
    Kind("buy", buy_goal, buy_it, 5),
)
