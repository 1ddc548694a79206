"""``/v1/images``: pictures, each stored once."""

from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, FileStorage, Tag
from pydantic import BaseModel, Field

from occluscope.errors import FieldError, InvalidPictureError
from service.api.auth import PROTECTED, owner
from service.api.context import IdPath, context
from service.api.problems import documented, invalid, not_found, problem
from service.store.images import add_image, find_image
from service.store.tables import Image

blueprint = APIBlueprint("images", __name__, url_prefix="/v1/images", abp_tags=[Tag(name="images")], **PROTECTED)


class UploadForm(BaseModel):
    """A picture: PNG, JPEG, WebP, TIFF, BMP or GIF."""

    file: FileStorage | None = Field(default=None, description="The picture")


class ImageView(BaseModel):
    """A stored picture. width, height: pixels, upright."""

    id: str
    sha256: str
    format: str
    width: int
    height: int


def view(image: Image) -> dict[str, Any]:
    """An image as the API shows it."""
    return ImageView.model_validate(image, from_attributes=True).model_dump()


@blueprint.post("", summary="Upload a picture", responses={201: ImageView, 200: ImageView, **documented(413, 415, 422)})
def upload(form: UploadForm) -> Response:  # noqa: ARG001 - its shape is published
    """The same bytes again give the same id, with status 200."""
    if request.mimetype != "multipart/form-data":
        return problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send the picture as multipart/form-data, in a part named 'file'.",
        )
    file = request.files.get("file")  # of the same name a text field would also be handed over in the form
    if file is None:
        return invalid([FieldError("file", "a part named 'file' with the picture is missing")])
    try:
        image, is_new = add_image(context().database, file.read(), owner())
    except InvalidPictureError as error:
        return invalid([FieldError("file", str(error))])
    response = jsonify(view(image))
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    return response


@blueprint.get("/<id>", summary="Show a picture's facts", responses={200: ImageView, **documented(404)})
def show(path: IdPath) -> Response:
    """Id, hash, format and size."""
    with context().database.reading() as session:
        image = find_image(session, path.id, owner())
        return jsonify(view(image)) if image else not_found("image")
