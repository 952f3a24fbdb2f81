"""Store (STOW-RS, PS3.18 section 10.5)."""

from cbmir_node.web.dicomweb.store.instances import router

__all__ = ["router"]
