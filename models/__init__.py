"""Neural fields: pure functions of (parameters, coordinates).

`FIELDS` maps the name a field has in configurations and on the command line to its class; adding a field is
adding one module and one entry here.
"""

from inrcodec.models.ffn import FourierFeatureNetwork
from inrcodec.models.field import Field, Parameters
from inrcodec.models.nerv import NeRV
from inrcodec.models.pyramid import LatentPyramid
from inrcodec.models.siren import Siren

FIELDS: dict[str, type[Field]] = {"siren": Siren, "ffn": FourierFeatureNetwork, "nerv": NeRV, "pyramid": LatentPyramid}

__all__ = ["FIELDS", "Field", "FourierFeatureNetwork", "LatentPyramid", "NeRV", "Parameters", "Siren"]
