"""Networks to .tflite files, and their answers from the runtime that devices use."""

import tempfile

import numpy as np
import tensorflow as tf
from ai_edge_litert.compiled_model import CompiledModel
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def export(scores, side=8):
    """A float32 .tflite with one signature: `image` [1, side, side, 1] to `scores` [1, 10]."""
    return _convert(scores, side, lambda converter: None)


def export_int8(scores, sample):
    """A full-integer .tflite, int8 at both ends, calibrated on a sample of images."""
    def quantize(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ({"image": i[np.newaxis]} for i in sample)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return _convert(scores, 8, quantize)


def _convert(scores, side, adjust):
    signature = [tf.TensorSpec([1, side, side, 1], tf.float32, name="image")]
    frozen = convert_variables_to_constants_v2(
        tf.function(scores, input_signature=signature).get_concrete_function())
    module = tf.Module()
    module.serve = tf.function(lambda image: {"scores": frozen(image)[0]}, input_signature=signature)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        adjust(converter)
        return converter.convert()


class Runner:
    """One model in LiteRT, one thread."""

    def __init__(self, model):
        self.compiled = CompiledModel.from_buffer(model)
        self.key = next(iter(self.compiled.get_signature_list()))
        details = self.compiled.get_input_tensor_details(self.key)["image"]
        self.shape = tuple(details["shape"])
        self.dtype = np.dtype(np.int8 if "int8" in str(details["dtype"]).lower() else np.float32)
        self.scale, self.zero = quantization(model) if self.dtype == np.int8 else ((1, 1), (0, 0))
        self.inputs = {"image": self.compiled.create_input_buffer_by_name(self.key, "image")}
        self.outputs = {"scores": self.compiled.create_output_buffer_by_name(self.key, "scores")}

    def stored(self, images):
        """Images as the model takes them."""
        if self.dtype == np.float32:
            return images
        return np.clip(np.round(images / self.scale[0]) + self.zero[0], -128, 127).astype(np.int8)

    def run(self, images):
        """The model's output for each image, in its own dtype."""
        rows = []
        for image in self.stored(images):
            self.inputs["image"].write(np.ascontiguousarray(image.reshape(self.shape)))
            self.compiled.run_by_name(self.key, self.inputs, self.outputs)
            rows.append(np.array(self.outputs["scores"].read(10, self.dtype.type)))
        return np.array(rows)

    def scores(self, images):
        """The output as real numbers."""
        return ((self.run(images).astype(np.float32) - self.zero[1]) * self.scale[1]).astype(np.float32)


def quantization(model):
    """Scale and zero point of input and output."""
    interpreter = tf.lite.Interpreter(model_content=model)
    ends = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    return tuple(e["quantization"][0] for e in ends), tuple(e["quantization"][1] for e in ends)
