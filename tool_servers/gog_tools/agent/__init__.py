"""The agent: a trained policy and its tools behind OpenAI's chat protocol, and a page to try them.

policy      samples the turns of a conversation from the policy's server
chats       requests in, answers and events out; pure
episodes    plays one chat: the loop of training, with its caps and its call paths
routes      which version of the policy answers, and what became of its chats
admission   keys, rates, chats at once
server      the application
page.html   drop an image, ask, watch it glance and gaze
"""
