"""Models to and from the Hugging Face Hub (``pip install "starpayne[hub]"``)."""

from starpayne.sharing.address import Address, hub_address
from starpayne.sharing.pull import Pulled, load, pull
from starpayne.sharing.push import Pushed, push

__all__ = ["Address", "Pulled", "Pushed", "hub_address", "load", "pull", "push"]
