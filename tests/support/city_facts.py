"""The output type of the seed programs, and the schema that is sent for it."""

from typing import List  # noqa: UP035

from pydantic import BaseModel, Field


class CityFact(BaseModel):
    city: str = Field(..., description="Name of the city")
    country: str = Field(..., description="Country the city is in")
    population: str = Field(..., description="Approximate population")
    fun_fact: str = Field(..., description="An interesting fact about the city")


class CityFactsResponse(BaseModel):
    cities: List[CityFact] = Field(..., description="List of city facts")  # noqa: UP006


CITY_FACTS = {
    "$defs": {
        "CityFact": {
            "properties": {
                "city": {"description": "Name of the city", "title": "City", "type": "string"},
                "country": {"description": "Country the city is in", "title": "Country", "type": "string"},
                "population": {"description": "Approximate population", "title": "Population", "type": "string"},
                "fun_fact": {
                    "description": "An interesting fact about the city",
                    "title": "Fun Fact",
                    "type": "string",
                },
            },
            "required": ["city", "country", "population", "fun_fact"],
            "title": "CityFact",
            "type": "object",
            "additionalProperties": False,
        }
    },
    "properties": {
        "cities": {
            "description": "List of city facts",
            "items": {"$ref": "#/$defs/CityFact"},
            "title": "Cities",
            "type": "array",
        }
    },
    "required": ["cities"],
    "title": "CityFactsResponse",
    "type": "object",
    "additionalProperties": False,
}
