"""Operations of an OpenAPI file as chunks with a function schema."""

import json

import pytest
import yaml

from trainer.data.read.rows import read_conversations
from trainer.errors import DataError
from trainer.workshop.documents.read import read_documents

API = """
openapi: 3.0.3
info: {title: Pet shop, version: "1"}
paths:
  /pets/{petId}:
    parameters:
      - {name: petId, in: path, required: true, schema: {type: integer, example: 7}}
      - {name: session, in: cookie, schema: {type: string}}
    get:
      operationId: getPet
      summary: Find a pet
      description: Returns one pet by its number.
      parameters:
        - {name: fields, in: query, description: what to return, schema: {type: array, items: {$ref: '#/components/schemas/Field'}}}
      responses:
        200: {description: the pet}
        404: {$ref: '#/components/responses/Missing'}
    delete: {responses: {}}
  /pets:
    post:
      operationId: "add pet!"
      requestBody:
        required: true
        content:
          text/plain: {schema: {type: string}}
          application/json: {schema: {$ref: '#/components/schemas/Pet'}}
components:
  responses:
    Missing: {description: no such pet}
  schemas:
    Field: {type: string, enum: [name, age], x-internal: true}
    Pet:
      type: object
      required: [id, name]
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string, nullable: true, exclusiveMinimum: false, description: its name}
        age: {type: integer, minimum: 0, exclusiveMinimum: true}
        parent: {$ref: '#/components/schemas/Pet'}
"""


def read(folder, text, name="api.yaml"):
    (folder / name).write_text(text)
    return read_documents([folder / name])


def problems(folder, text) -> list[str]:
    with pytest.raises(DataError) as error:
        read(folder, text)
    return [problem.replace(f"{folder}/", "") for problem in error.value.problems]


def test_each_operation_is_a_chunk_with_its_function(tmp_path):
    find, delete, add = read(tmp_path, API)
    assert [chunk.place for chunk in (find, delete, add)] == ["GET /pets/{petId}", "DELETE /pets/{petId}", "POST /pets"]
    assert find.title == "Pet shop"
    assert find.text == (
        "getPet: GET /pets/{petId}\n\nFind a pet\n\nReturns one pet by its number.\n\nArguments:\n"
        "- petId (integer, required)\n- fields (array, optional): what to return\n\nAnswers:\n- 200: the pet\n"
        "- 404: no such pet"
    )
    assert json.loads(find.function) == {
        "name": "getPet",
        "description": "Find a pet\n\nReturns one pet by its number.",
        "parameters": {
            "type": "object",
            "properties": {
                "petId": {"type": "integer"},
                "fields": {"type": "array", "description": "what to return",
                           "items": {"type": "string", "enum": ["name", "age"]}},
            },
            "additionalProperties": False,
            "required": ["petId"],
        },
    }  # fmt: skip
    assert json.loads(delete.function)["name"] == "delete_pets_petId"
    assert json.loads(add.function) == {
        "name": "add_pet", "description": "POST /pets",
        "parameters": {
            "type": "object", "required": ["name"], "additionalProperties": False,
            "properties": {
                "name": {"type": ["string", "null"], "description": "its name"},
                "age": {"type": "integer", "exclusiveMinimum": 0},
                "parent": {"type": "object", "description": "another Pet"},
            },
        },
    }  # fmt: skip


def test_json_gives_what_yaml_gives_and_another_yaml_file_is_text(tmp_path):
    as_yaml = read(tmp_path, API)
    as_json = read(tmp_path, json.dumps(yaml.safe_load(API)), "api.json")
    assert [(chunk.text, chunk.function) for chunk in as_json] == [(chunk.text, chunk.function) for chunk in as_yaml]
    assert [chunk.text for chunk in read(tmp_path, "a: 1\nb: 2\n", "other.yml")] == ["a: 1\nb: 2"]


def test_functions_pass_the_rules_of_a_row(tmp_path):
    rows = tmp_path / "rows.jsonl"
    tools = [{"type": "function", "function": json.loads(chunk.function)} for chunk in read(tmp_path, API)]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows.write_text(json.dumps({"messages": messages, "tools": tools}))
    assert [finding for finding in read_conversations(rows).findings if finding.severity == "error"] == []


def test_swagger_2_is_read_too(tmp_path):
    api = {
        "swagger": "2.0", "info": {}, "definitions": {"A/b": {"properties": {"x": {"type": "string"}}, "required": ["x"]}},
        "paths": {"/a": {"put": {"parameters": [
            {"name": "n", "in": "query", "type": "integer", "required": True, "description": "a number"},
            {"name": "body", "in": "body", "required": True, "schema": {"$ref": "#/definitions/A~1b"}},
        ]}}},
    }  # fmt: skip
    (chunk,) = read(tmp_path, json.dumps(api), "a.json")
    assert json.loads(chunk.function)["parameters"] == {
        "type": "object", "required": ["n", "x"], "additionalProperties": False,
        "properties": {"n": {"type": "integer", "description": "a number"}, "x": {"type": "string"}},
    }  # fmt: skip


def test_a_body_whose_fields_have_a_parameters_name_stays_one_argument(tmp_path):
    text = API.replace("/pets:\n", "/pets:\n    parameters: [{name: name, in: query, schema: {type: string}}]\n")
    schema = json.loads(read(tmp_path, text)[2].function)["parameters"]
    assert list(schema["properties"]) == ["name", "body"]
    assert schema["required"] == ["body"]


def test_a_body_of_any_fields_stays_one_argument(tmp_path):
    text = API.replace(
        "      required: [id, name]\n", "      required: [id, name]\n      additionalProperties: {type: integer}\n"
    )
    schema = json.loads(read(tmp_path, text)[2].function)["parameters"]
    assert list(schema["properties"]) == ["body"]
    assert schema["properties"]["body"]["additionalProperties"] == {"type": "integer"}


def test_operations_of_one_name_are_told_apart(tmp_path):
    text = "openapi: 3.1.0\npaths:\n" + "".join(f"  /{n}: {{get: {{operationId: same}}}}\n" for n in range(3))
    assert [json.loads(chunk.function)["name"] for chunk in read(tmp_path, text)] == ["same", "same_2", "same_3"]


def test_references_out_of_the_file_and_to_nothing_are_told_all_at_once(tmp_path):
    (tmp_path / "secret.json").write_text('{"type": "string", "description": "secret"}')
    text = API.replace("'#/components/schemas/Field'", "'secret.json'").replace(
        "schemas/Pet'}}\ncomp", "schemas/Gone'}}\ncomp"
    )
    assert problems(tmp_path, text) == [
        "api.yaml: GET /pets/{petId} has the $ref 'secret.json', which leads out of the file, expected references that "
        "begin with '#/'; bundle the API into one file",
        "api.yaml: POST /pets has the $ref '#/components/schemas/Gone', which names nothing, expected a part of the "
        "file; correct it",
    ]


def test_schemas_of_many_layers_are_read_whole(tmp_path):
    layers = "".join(
        f"    L{n}: {{properties: {{deeper: {{$ref: '#/components/schemas/L{n + 1}'}}}}}}\n" for n in range(20)
    )
    body = "{content: {a/json: {schema: {$ref: '#/components/schemas/L0'}}}}"
    text = f"openapi: 3.1.0\npaths: {{/a: {{post: {{requestBody: {body}}}}}}}\ncomponents:\n  schemas:\n{layers}"
    (chunk,) = read(tmp_path, f"{text}    L20: {{type: string}}\n")
    assert chunk.function.count("deeper") == 20
    assert '"deeper": {"type": "string"}' in chunk.function


def test_schemas_that_grow_without_end_are_refused(tmp_path):
    layers = ""
    for n in range(9):
        inner = ", ".join(f"p{k}: {{$ref: '#/components/schemas/L{n + 1}'}}" for k in range(9))
        layers += f"    L{n}: {{properties: {{{inner}}}}}\n"
    start = "openapi: 3.1.0\npaths: {/a: {post: {requestBody: {content: {a/json: {schema: {$ref: '#/components/schemas/L0'}}}}}}}\n"
    (told,) = problems(tmp_path, f"{start}components:\n  schemas:\n{layers}    L9: {{}}\n")
    assert told.startswith("api.yaml: POST /a has a schema that is too large, expected a smaller one")
    aliases = "a: &a [x]\n" + "".join(f"b{n}: &b{n} [{', '.join(['*a'] * 9)}]\n" for n in range(5))
    assert read(tmp_path, aliases, "other.yaml")


@pytest.mark.parametrize("text", ["[", "!!python/object:os.system x", "1\n---\nb: 2", "[" * 1_000_000, "*x"])
def test_broken_yaml_is_told_in_a_sentence(tmp_path, text):
    assert read(tmp_path, text, "other.yaml")
    text = f"openapi: 3.1.0\nb: {text}"
    assert len(problems(tmp_path, text)) == 1
    assert "is not YAML" in problems(tmp_path, text)[0]


BOMB = "x0: &x0 [word, word]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 7))
GROWING = {
    "itself": ("&x [*x]", "", "the value 'x' holds itself"),
    "aliases": ("*x6", BOMB, "aliases that make more than 20 times as much of the text"),
}


@pytest.mark.parametrize(("value", "before", "told"), GROWING.values(), ids=GROWING)
def test_values_that_hold_themselves_or_grow_by_aliases_are_refused(tmp_path, value, before, told):
    parameter = f"{{name: p, in: query, schema: {{type: string, default: {value}}}}}"
    text = f"openapi: 3.1.0\n{before}paths: {{/a: {{get: {{parameters: [{parameter}]}}}}}}\n"
    (said,) = problems(tmp_path, text)
    assert said == f"api.yaml: is not YAML ({told}), expected an OpenAPI file; correct it"


def test_anchors_and_merged_fields_are_read(tmp_path):
    texts = "x: &x {type: string, description: A word.}"
    parameter = "{name: p, in: query, schema: {<<: *x, enum: [a, b]}}"
    (chunk,) = read(tmp_path, f"openapi: 3.1.0\n{texts}\npaths: {{/a: {{get: {{parameters: [{parameter}]}}}}}}\n")
    assert '"p": {"type": "string", "description": "A word.", "enum": ["a", "b"]}' in chunk.function
