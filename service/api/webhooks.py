"""``/v1/webhooks``: what deliveries are signed with."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from occluscope import wire
from service.api.auth import PROTECTED, owner
from service.api.context import context
from service.api.problems import documented
from service.api.views import answer
from service.store.deliveries import webhook_secret

blueprint = APIBlueprint("webhooks", __name__, url_prefix="/v1/webhooks", abp_tags=[Tag(name="webhooks")], **PROTECTED)


@blueprint.get(
    "/secret",
    summary="Show the secret that deliveries are signed with",
    responses={200: wire.WebhookSecret, **documented(507)},
)
def secret() -> Response:
    """The same for all webhooks of an owner; made when it is first asked for."""
    with context().database.writing() as session:
        return answer(wire.WebhookSecret(secret=webhook_secret(session, owner())))
