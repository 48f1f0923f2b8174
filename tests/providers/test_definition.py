"""What a definition may be, what is wrong with others, and that a workflow's service is a copy under another name."""

from __future__ import annotations

import copy

import pytest
import restate

from holdfast import Engine, providers
from holdfast.providers import InvalidSpec, WorkflowSpec
from holdfast.providers.definition import PROMISE_HANDLER, load, renamed
from holdfast.providers.system import EXECUTIONS, system_services
from tests.providers import flows

HERE = "tests.providers.flows"

KINDS = {
    "service with a handler": ("greeter", "greet", "SERVICE", "Greeter", "greet"),
    "object with a handler": ("counter", "add", "VIRTUAL_OBJECT", "Counter", "add"),
    "workflow": ("order", None, "WORKFLOW", "Order", "run"),
    "handler of a service": ("wave", None, "SERVICE", "Greeter", "wave"),
    "run handler": ("run", None, "WORKFLOW", "Order", "run"),
    "coroutine function": ("plain", None, "WORKFLOW", "plain", "run"),
    "coroutine function without input": ("without_input", None, "WORKFLOW", "without_input", "run"),
    "several services": ("both", None, "SERVICE", "Parent", "ask_child"),
    "ready application": ("app", "wave", "SERVICE", "Greeter", "wave"),
}


@pytest.mark.parametrize("case", KINDS)
async def test_what_a_definition_may_be(case: str) -> None:
    name, handler, ty, service, chosen = KINDS[case]
    found = await load(f"{HERE}:{name}", handler=handler)
    assert (found.service.ty, found.service.name, found.handler.name) == (ty, service, chosen)


REFUSED = {
    "no module": ("no_such_module:x", None, None, "definition", "no module 'no_such_module'"),
    "no attribute": (f"{HERE}:greetr", None, None, "definition", "has no 'greetr'"),
    "a number": (f"{HERE}:number", None, None, "definition", "an object of type int"),
    "a plain function": (f"{HERE}:not_async", None, None, "definition", "the function not_async"),
    "a function of four": (f"{HERE}:with_three", None, None, "definition", "the function with_three"),
    "a class": ("restate:Workflow", None, None, "definition", "the class Workflow"),
    "several handlers": (f"{HERE}:greeter", None, None, "definition.handler", "has several handlers"),
    "no handlers": (f"{HERE}:without_handlers", None, None, "definition", "Empty has no handlers"),
    "unknown handler": (f"{HERE}:greeter", "shout", None, "definition.handler", "no handler 'shout'"),
    "not the run handler": (f"{HERE}:order", "look", None, "definition.handler", "no run handler"),
    "application of several": (f"{HERE}:app_of_two", None, None, "provider_config.service", "is required"),
    "no such service": (f"{HERE}:app_of_two", None, "Nope", "provider_config.service", "no service 'Nope'"),
    "result not kept": (f"{HERE}:forgetful", None, None, "definition", "keeps its result for 0 ms only"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused(case: str) -> None:
    reference, handler, service, field, text = REFUSED[case]
    with pytest.raises(InvalidSpec, match=text) as refusal:
        await load(reference, handler=handler, service=service)
    assert refusal.value.field == field
    assert refusal.value.hint


def test_a_copy_leaves_the_original_as_it_is() -> None:
    before = copy.copy(vars(flows.order)), dict(flows.order.handlers), copy.copy(flows.order.service_tag)
    [copied] = renamed([flows.order], "orders-eu")
    assert copied.name == "orders-eu"
    assert set(copied.handlers) == {"run", "look", PROMISE_HANDLER}
    assert (vars(flows.order), dict(flows.order.handlers), flows.order.service_tag) == before
    assert {handler.service_tag.name for handler in flows.order.handlers.values()} == {"Order"}
    assert {handler.service_tag.name for handler in copied.handlers.values()} == {"orders-eu"}


async def test_calls_of_a_copy_to_itself_reach_the_copy() -> None:
    # Both copies of one object run at once, and its original is not registered at all.
    app = restate.app([*renamed([flows.counter], "one"), *renamed([flows.counter], "two")])
    async with Engine(app) as engine:
        for service in ("one", "two"):
            spec = engine.services[service].handlers["add_elsewhere"]
            completion, _ = await engine.call(spec, "k", b"2")
            assert completion.value == b"8"  # 2, then 4 by a send, then 6: 2 + 6
            assert engine.state(service, "k-elsewhere") == {"count": b"6"}
        assert engine.state("Counter", "k-elsewhere") == {}


async def test_several_services_are_served_together(tmp_path: object) -> None:
    async with await providers.open("embedded", db=":memory:") as provider:
        await provider.create_workflow(WorkflowSpec(workflow_id="family", name="F", definition=f"{HERE}:both"))
        for expected in (1, 2):
            started = await provider.start_execution("family", "kid")
            assert (await provider.wait(started.execution_id, timeout=30)).output == expected


async def test_a_ready_application_keeps_the_names_of_its_services() -> None:
    async with await providers.open("embedded", db=":memory:") as provider:
        definition = {"reference": f"{HERE}:app_of_two", "handler": "greet"}
        spec = WorkflowSpec(
            workflow_id="ready", name="R", definition=definition, provider_config={"service": "Greeter"}
        )
        assert (await provider.create_workflow(spec)).service_name == "Greeter"
        started = await provider.start_execution("ready", "Ada")
        assert (await provider.wait(started.execution_id, timeout=30)).output == "Hello Ada"


async def test_an_application_to_deploy_has_workflows_and_system_services() -> None:
    app = providers.app({"orders": flows.order, "2nd": flows.plain}, services=[flows.greeter])
    async with Engine(app) as engine:
        assert {"orders", "W2nd", "Greeter", EXECUTIONS} <= set(engine.services)


def test_an_application_of_two_workflows_of_one_name_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="Greeter"):
        providers.app({}, services=[flows.greeter, flows.greeter])
    with pytest.raises(InvalidSpec, match="workflow_id"):
        providers.app({"Upper": flows.order})
    with pytest.raises(InvalidSpec, match="ready application"):
        providers.app({"ready": flows.app})


def test_system_services_are_made_anew_each_time() -> None:
    first, second = system_services(), system_services()
    assert [each.name for each in first] == [each.name for each in second]
    assert not {id(each) for each in first} & {id(each) for each in second}
