"""Asks an inference server through tritonclient, in the modes that the library has
by default, and prints what it saw as JSON. Arguments: http or grpc, the address, an
.npz file of images."""
import json
import queue
import struct
import sys
import zlib

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException, shared_memory

MODEL, INPUT, OUTPUT = "digits", "image", "scores"


def error(call):
    try:
        call()
    except InferenceServerException as e:
        return [e.status(), e.message()]
    return None


def tensors(api, image, **how):
    x = api.InferInput(INPUT, list(image.shape), "FP32")
    x.set_data_from_numpy(image, **how)
    return [x]


def picture(api, image):
    """The image as a PNG, whose pixels are sixteenths: the server makes the tensor of it."""
    pixels = np.round(image[0, :, :, 0] * 16).astype(np.uint8)
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    png = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
           + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    x = api.InferInput(INPUT, [1], "BYTES")
    x.set_data_from_numpy(np.array([png], dtype=object))
    return [x]


def answers(api, client, image):
    """The same question in every way that the library has."""
    ask = lambda **how: client.infer(MODEL, tensors(api, image), **how)
    out = {
        "default": ask(),
        "version": ask(model_version="1.1.0", request_id="7"),
        "outputs": ask(outputs=[api.InferRequestedOutput(OUTPUT)]),
        "timeout": ask(timeout=5_000_000),
        "in memory": in_memory(api, client, image),
        "picture": client.infer(MODEL, picture(api, image)),
    }
    if api is http:
        plain = [http.InferRequestedOutput(OUTPUT, binary_data=False)]
        out["JSON"] = client.infer(MODEL, tensors(api, image, binary_data=False), outputs=plain)
        for packed in "gzip", "deflate":
            out[packed] = ask(request_compression_algorithm=packed, response_compression_algorithm=packed)
        out["async"] = client.async_infer(MODEL, tensors(api, image)).get_result()
    else:
        came = queue.Queue()
        take = lambda result, error: came.put(error or result)
        out["gzip"] = ask(compression_algorithm="gzip")
        client.async_infer(MODEL, tensors(api, image), take)
        out["async"] = came.get(timeout=30)
        client.start_stream(take)
        client.async_stream_infer(MODEL, tensors(api, image))
        out["stream"] = came.get(timeout=30)
        client.async_stream_infer("other", tensors(api, image))
        assert isinstance(came.get(timeout=30), InferenceServerException)
        client.async_stream_infer(MODEL, tensors(api, image))
        out["stream after an error"] = came.get(timeout=30)
        client.stop_stream()
    scores = {name: a.as_numpy(OUTPUT) for name, a in out.items() if name != "in memory"}
    scores["in memory"] = out["in memory"]
    return {name: s.tolist() for name, s in scores.items()}


def in_memory(api, client, image):
    """Input and output in shared memory."""
    region = shared_memory.create_shared_memory_region("r", "/dunlin-triton-test", 1024)
    try:
        shared_memory.set_shared_memory_region(region, [image])
        client.register_system_shared_memory("r", "/dunlin-triton-test", 1024)
        x = api.InferInput(INPUT, list(image.shape), "FP32")
        x.set_shared_memory("r", image.nbytes)
        y = api.InferRequestedOutput(OUTPUT)
        y.set_shared_memory("r", 40, offset=512)
        client.infer(MODEL, [x], outputs=[y])
        client.unregister_system_shared_memory("r")
        client.unregister_cuda_shared_memory()
        return shared_memory.get_contents_as_numpy(region, np.float32, [1, 10], offset=512).copy()
    finally:
        shared_memory.destroy_shared_memory_region(region)


def main(mode, address, file):
    api = {"http": http, "grpc": grpc}[mode]
    as_json = {"as_json": True} if api is grpc else {}
    images = np.load(file)["images"].astype(np.float32)[:16]
    image = images[:1]
    client = api.InferenceServerClient(address)
    index = client.get_model_repository_index(**as_json)
    regions = client.get_system_shared_memory_status(**as_json)
    seen = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(MODEL),
        "version ready": client.is_model_ready(MODEL, "1.1.0"),
        "other version ready": client.is_model_ready(MODEL, "9.9.9"),
        "server": client.get_server_metadata(**as_json),
        "model": client.get_model_metadata(MODEL, **as_json),
        "config": client.get_model_config(MODEL, **as_json),
        "index": [{k: m[k] for k in ("name", "version", "state")} for m in (index["models"] if api is grpc else index)],
        "regions": len(regions.get("regions", {}) if api is grpc else regions),
        "scores": answers(api, client, image),
        "classes": [int(client.infer(MODEL, tensors(api, i[None])).as_numpy(OUTPUT).argmax()) for i in images],
    }
    top = client.infer(MODEL, tensors(api, image), outputs=[api.InferRequestedOutput(OUTPUT, class_count=2)])
    seen["top"] = [[s.decode() for s in row] for row in top.as_numpy(OUTPUT).tolist()]
    wrong = tensors(api, np.zeros([1, 8, 9, 1], np.float32))
    seen["errors"] = {
        "shape": error(lambda: client.infer(MODEL, wrong)),
        "model": error(lambda: client.infer("other", tensors(api, image))),
        "output": error(lambda: client.infer(MODEL, tensors(api, image), outputs=[api.InferRequestedOutput("other")])),
        "load": error(lambda: client.load_model(MODEL)),
        "region": error(lambda: client.register_system_shared_memory("r", "/../etc/passwd", 16)),
    }
    seen["statistics"] = client.get_inference_statistics(MODEL, **as_json)["model_stats"]
    client.close()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
