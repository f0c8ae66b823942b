"""OpenAI's images API, /v1/images, as its SDK and many programs know it."""

from api.openai_images.endpoints import DIALECT as DIALECT
