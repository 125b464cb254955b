"""The simulator's doors."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.routes import DELETE, GET, PATCH, POST, Answer, Route
from piod.http.simulator import (
    FAULT_EXAMPLE,
    PLANT_EXAMPLE,
    SYSTEM_EXAMPLE,
    AdvanceSchema,
    FaultSchema,
    PlantSchema,
    SimulatorHandlers,
)


def simulator_routes(simulator: SimulatorHandlers) -> Iterator[Route]:
    """The simulator's doors."""
    yield Route(
        GET,
        "/simulator/plant",
        simulator.plant,
        tag="Simulator",
        summary="The truth about the simulated reactor",
        answers={200: Answer("The plant.", PLANT_EXAMPLE)},
    )
    yield Route(
        PATCH,
        "/simulator/plant",
        simulator.patch_plant,
        tag="Simulator",
        summary="Change the simulated reactor",
        body=PlantSchema,
        answers={200: Answer("The plant after the change.", PLANT_EXAMPLE)},
    )
    yield Route(
        GET,
        "/simulator/system",
        simulator.system,
        tag="Simulator",
        summary="What was asked of the simulated machine",
        description="Power, clock, services, updates; oldest first. update is the last one.",
        answers={200: Answer("What it did.", SYSTEM_EXAMPLE)},
    )
    yield Route(
        GET,
        "/simulator/faults",
        simulator.faults,
        tag="Simulator",
        summary="What is broken",
        answers={200: Answer("The faults, oldest first.", [FAULT_EXAMPLE])},
    )
    yield Route(
        POST,
        "/simulator/faults",
        simulator.add_fault,
        tag="Simulator",
        summary="Break something",
        body=FaultSchema,
        answers={201: Answer("The fault.", FAULT_EXAMPLE)},
    )
    yield Route(
        DELETE,
        "/simulator/faults",
        simulator.clear_faults,
        tag="Simulator",
        summary="Repair everything",
        answers={200: Answer("Nothing is broken.", [])},
    )
    yield Route(
        DELETE,
        "/simulator/faults/{fault_id}",
        simulator.remove_fault,
        tag="Simulator",
        summary="Repair one fault",
        path_params={"fault_id": "Id of the fault."},
        answers={200: Answer("The faults that are left.", [])},
        errors=(404,),
    )
    yield Route(
        POST,
        "/simulator/advance",
        simulator.advance,
        tag="Simulator",
        summary="Let simulated time pass as fast as the machine goes",
        body=AdvanceSchema,
        answers={200: Answer("The time of the unit.", {"utc_time": "2026-01-31T12:46:00.000Z"})},
    )
