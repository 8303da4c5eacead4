"""Who made the browser ask: requests that change something are refused where another site's page sent them."""

from flask import request
from werkzeug.exceptions import Forbidden


def refuse_other_sites(is_form: bool = False) -> None:
    """Forbidden unless this site's own page asks, or a program that is no browser.

    Browsers send Sec-Fetch-Site to https and loopback addresses, and Origin with every POST. Credentials ride along
    with a form that another site posts, so a form must come with one of the two.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        is_ours = site in ("same-origin", "none")
    elif origin is not None:
        is_ours = origin.partition("://")[2] == request.host
    else:
        is_ours = not is_form
    if not is_ours:
        raise Forbidden("Only nextbatch's own pages may ask for that in a browser.")
