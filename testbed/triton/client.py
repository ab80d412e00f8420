"""Asks an inference server through tritonclient, in the modes that the library has
by default, and prints what it saw as JSON. The first argument is the address; the
second an .npz file of images; the third, if any, a key of shared memory."""
import json
import sys

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

MODEL, INPUT, OUTPUT = "digits", "image", "scores"


def tensors(image, **how):
    x = http.InferInput(INPUT, list(image.shape), "FP32")
    x.set_data_from_numpy(image, **how)
    return [x]


def error(call):
    try:
        call()
    except InferenceServerException as e:
        return [e.status(), e.message()]
    return None


def main(address, file):
    images = np.load(file)["images"].astype(np.float32)[:16]
    client = http.InferenceServerClient(address)
    image = images[:1]
    seen = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(MODEL),
        "version ready": client.is_model_ready(MODEL, "1.1.0"),
        "other version ready": client.is_model_ready(MODEL, "9.9.9"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL),
        "config": client.get_model_config(MODEL),
        "index": client.get_model_repository_index(),
        "regions": client.get_system_shared_memory_status(),
    }
    wanted = [http.InferRequestedOutput(OUTPUT)]
    as_json = [http.InferRequestedOutput(OUTPUT, binary_data=False)]
    answers = {
        "default": client.infer(MODEL, tensors(image)),
        "version": client.infer(MODEL, tensors(image), model_version="1.1.0", request_id="7"),
        "outputs": client.infer(MODEL, tensors(image), outputs=wanted),
        "JSON": client.infer(MODEL, tensors(image, binary_data=False), outputs=as_json),
        "gzip": client.infer(MODEL, tensors(image), request_compression_algorithm="gzip", response_compression_algorithm="gzip"),
        "deflate": client.infer(MODEL, tensors(image), request_compression_algorithm="deflate", response_compression_algorithm="deflate"),
        "timeout": client.infer(MODEL, tensors(image), timeout=5_000_000),
        "async": client.async_infer(MODEL, tensors(image)).get_result(),
    }
    seen["scores"] = {name: a.as_numpy(OUTPUT).tolist() for name, a in answers.items()}
    seen["classes"] = [int(client.infer(MODEL, tensors(i[None])).as_numpy(OUTPUT).argmax()) for i in images]
    top = client.infer(MODEL, tensors(image), outputs=[http.InferRequestedOutput(OUTPUT, class_count=2)]).as_numpy(OUTPUT)
    seen["top"] = [[s.decode() for s in row] for row in top.tolist()]
    wrong = http.InferInput(INPUT, [1, 8, 9, 1], "FP32")
    wrong.set_data_from_numpy(np.zeros([1, 8, 9, 1], np.float32))
    seen["errors"] = {
        "shape": error(lambda: client.infer(MODEL, [wrong])),
        "model": error(lambda: client.infer("other", tensors(image))),
        "output": error(lambda: client.infer(MODEL, tensors(image), outputs=[http.InferRequestedOutput("other")])),
        "load": error(lambda: client.load_model(MODEL)),
        "region": error(lambda: client.register_system_shared_memory("r", "/../etc/passwd", 16)),
    }
    seen["statistics"] = client.get_inference_statistics(MODEL)
    client.close()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:3])
