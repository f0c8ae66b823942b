"""A1111's API, /sdapi/v1, as its many clients know it."""

from api.a1111.endpoints import DIALECT as DIALECT
