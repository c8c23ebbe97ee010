"""The data contracts: read from ``schemas/``, the only place where a column is declared."""

from ospor_batch.contracts.registry import Contract, Field, contract, contract_names

__all__ = ["Contract", "Field", "contract", "contract_names"]
