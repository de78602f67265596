/* Draws one picture with a served model through TensorFlow's C API.

   serve MODEL CAPTIONS SEEDS IMAGES CAPTION SEED > picture.png
   CAPTIONS, SEEDS and IMAGES name the tensors of the signature. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static TF_Status *status;

static void check(void) {
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "%s\n", TF_Message(status));
    exit(1);
  }
}

static TF_Output tensor_of(TF_Graph *graph, char *name) { /* "op:index" */
  char *colon = strrchr(name, ':');
  *colon = 0;
  TF_Output output = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!output.oper) {
    fprintf(stderr, "no operation %s\n", name);
    exit(1);
  }
  return output;
}

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, argv[1], tags,
                                                     1, graph, NULL, status);
  check();
  TF_Output inputs[] = {tensor_of(graph, argv[2]), tensor_of(graph, argv[3])};
  TF_Output output = tensor_of(graph, argv[4]);
  int64_t one = 1;
  TF_Tensor *feeds[] = {TF_AllocateTensor(TF_STRING, &one, 1, sizeof(TF_TString)),
                        TF_AllocateTensor(TF_INT64, &one, 1, sizeof(int64_t))};
  TF_TString *caption = TF_TensorData(feeds[0]);
  TF_StringInit(caption);
  TF_StringCopy(caption, argv[5], strlen(argv[5]));
  *(int64_t *)TF_TensorData(feeds[1]) = strtoll(argv[6], NULL, 10);
  TF_Tensor *image = NULL;
  TF_SessionRun(session, NULL, inputs, feeds, 2, &output, &image, 1, NULL, 0, NULL, status);
  check();
  const TF_TString *png = TF_TensorData(image);
  fwrite(TF_StringGetDataPointer(png), 1, TF_StringGetSize(png), stdout);
  return 0;
}
