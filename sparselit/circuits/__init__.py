"""Circuits: what they are, for which behaviour, how they are found, whether they are true, and their files."""

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.criterion import Bound
from sparselit.circuits.discover import NoCircuitError, discover
from sparselit.circuits.files import read_circuit, write_circuit
from sparselit.circuits.loaded import load
from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.sets import difference, intersection, shared, union
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.circuits.verify import verify
from sparselit.data.behaviour import Behaviour

__all__ = [
    "Ablation",
    "Behaviour",
    "Bound",
    "Circuit",
    "FastEngine",
    "NaiveEngine",
    "NoCircuitError",
    "Problem",
    "Subnetwork",
    "difference",
    "discover",
    "intersection",
    "load",
    "read_circuit",
    "shared",
    "union",
    "verify",
    "write_circuit",
]
