"""What both forms share: an HTTP route that emits, and an event that subscribes."""

from fastapi import APIRouter

from bellwire import Event, Namespace, Socket

WATCH = Event("order:watch", int, reply=bool)
SHIPPED = Event("order:shipped", int)

router = APIRouter()
orders = Namespace("/orders", emits=(SHIPPED,))


@orders.on(WATCH)
async def watch(socket: Socket, order: int) -> bool:
    await socket.join(f"order:{order}")
    return True


@router.post("/orders/{order}/ship")
async def ship(order: int) -> dict[str, int]:
    await orders.to(f"order:{order}").emit(SHIPPED, order)
    return {"shipped": order}
