"""What programs import from here that show images and files to a model: ``from pgrun.media import File, Image``."""

from pgrun.run.media import File as File
from pgrun.run.media import Image as Image
