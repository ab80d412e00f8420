"""MLServer runtime for .tflite files: what its documentation asks of a custom runtime."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri

from interpreter import Model


class LiteRT(MLModel):
    async def load(self) -> bool:
        self.model = Model(await get_model_uri(self._settings))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        array = NumpyCodec.decode_input(payload.inputs[0])
        outputs = self.model.run(array)
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(f"output-{i}", o) for i, o in enumerate(outputs)],
        )
