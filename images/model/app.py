"""A small real model behind HTTP: tells which language a text is in."""

import asyncio
import os
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from pydantic import BaseModel, ConfigDict, StringConstraints

INSTANCE = os.uname().nodename

app = FastAPI(title="model")
model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)  # before the port is open
at_once = 0


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]


@app.post("/predict")
async def predict(question: Question) -> dict[str, object]:
    global at_once  # noqa: PLW0603  # it shows what max_concurrency is for
    at_once += 1
    this_many = at_once
    try:
        language, probability = await asyncio.to_thread(model.classify, question.text)
    finally:
        at_once -= 1
    return {"language": language, "probability": round(probability, 3), "instance": INSTANCE, "at_once": this_many}


@app.get("/healthz")
async def healthz() -> dict[str, object]:
    return {"status": "ready", "languages": len(model.labels)}


@app.exception_handler(RequestValidationError)
async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong in a line for each fault, without sending back what was sent."""
    wrong = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
    return JSONResponse({"error": "bad_input", "wrong": wrong}, status_code=422)


uvicorn.run(
    app,
    host="0.0.0.0",
    port=8000,
    log_config=None,
    access_log=False,
    server_header=False,
    timeout_graceful_shutdown=8,  # Docker kills after 10
)
