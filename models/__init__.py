"""Neural fields and the networks of latent fields: pure functions of (parameters, coordinates or grids).

`FIELDS` maps the name a field has in configurations and on the command line to its class; adding a field is
adding one module and one entry here.
"""

from inrcodec.models.clip import LatentClip
from inrcodec.models.entropy_model import EntropyModel
from inrcodec.models.ffn import FourierFeatureNetwork
from inrcodec.models.field import Family, Field, Parameters, PointField
from inrcodec.models.latent import Grid, LatentField, LatentTransform, Positions
from inrcodec.models.nerv import NeRV
from inrcodec.models.pyramid import LatentPyramid
from inrcodec.models.sequence import LatentSequence
from inrcodec.models.series import LatentSeries
from inrcodec.models.siren import Siren
from inrcodec.models.spectrum import LatentSpectrum

FIELDS: dict[str, type[Field]] = {
    field.name: field
    for field in (Siren, FourierFeatureNetwork, NeRV, LatentPyramid, LatentClip, LatentSeries, LatentSpectrum)
}

__all__ = [
    "FIELDS",
    "EntropyModel",
    "Family",
    "Field",
    "FourierFeatureNetwork",
    "Grid",
    "LatentClip",
    "LatentField",
    "LatentPyramid",
    "LatentSequence",
    "LatentSeries",
    "LatentSpectrum",
    "LatentTransform",
    "NeRV",
    "Parameters",
    "PointField",
    "Positions",
    "Siren",
]
