"""``/v1/images``: pictures, each stored once."""

from http import HTTPStatus

from flask import Response, request
from flask_openapi3 import APIBlueprint, FileStorage, Tag
from pydantic import BaseModel, Field

from occluscope import wire
from occluscope.errors import FieldError, InvalidPictureError
from service.api.auth import PROTECTED, owner
from service.api.context import IdPath, context
from service.api.problems import documented, invalid, not_found, problem
from service.api.views import answer, view
from service.store.images import add_image, find_image

blueprint = APIBlueprint("images", __name__, url_prefix="/v1/images", abp_tags=[Tag(name="images")], **PROTECTED)


class UploadForm(BaseModel):
    """A picture: PNG, JPEG, WebP, TIFF, BMP or GIF."""

    file: FileStorage | None = Field(default=None, description="The picture")


@blueprint.post(
    "", summary="Upload a picture", responses={201: wire.Image, 200: wire.Image, **documented(413, 415, 422)}
)
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
    return answer(view(wire.Image, image), HTTPStatus.CREATED if is_new else HTTPStatus.OK)


@blueprint.get("/<id>", summary="Show a picture's facts", responses={200: wire.Image, **documented(404)})
def show(path: IdPath) -> Response:
    """Id, hash, format and size."""
    with context().database.reading() as session:
        image = find_image(session, path.id, owner())
        return answer(view(wire.Image, image)) if image else not_found("image")
