"""Install the services that the tests need and that pip does not bring: Label Studio, Triton's runtime, Postgres."""

from backend import environments
from tests.services import postgres

environments.ensure("label-studio", environments.LABEL_STUDIO, print)
environments.ensure("triton", environments.TRITON, print)
postgres.install()
