"""Labels: what the code that is sampled was doing it for.

They hang on one context variable, which the timer thread reads from each thread's context: so they go where
contexts go, at no cost where those change.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any

labels = _native.Labels
set_labels = _native.set_labels


def decorate(block: _native.Labels, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its body in the block, each time that it is called.

    Coroutine functions are awaited in it. Generators have the labels while they run, not between two items.
    """
    import inspect  # for those alone who decorate

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with block:
                return await function(*args, **kwargs)

        return awaited
    if inspect.isasyncgenfunction(function):

        @wraps(function)
        async def iterated_async(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator = function(*args, **kwargs)
            step: Any = generator.asend
            argument: Any = None
            while True:
                try:
                    with block:
                        item = await step(argument)
                except StopAsyncIteration:
                    return
                try:
                    step, argument = generator.asend, (yield item)
                except GeneratorExit:
                    with block:
                        await generator.aclose()
                    raise
                except BaseException as error:
                    step, argument = generator.athrow, error

        return iterated_async
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def iterated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            step: Any = generator.send
            argument: Any = None
            while True:
                try:
                    with block:
                        item = step(argument)
                except StopIteration as stop:
                    return stop.value
                try:
                    step, argument = generator.send, (yield item)
                except GeneratorExit:
                    with block:
                        generator.close()
                    raise
                except BaseException as error:
                    step, argument = generator.throw, error

        return iterated

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with block:
            return function(*args, **kwargs)

    return called
